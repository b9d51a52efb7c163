// Classifies images with ONNX Runtime by an exported folder, its inference.onnx and inference.yml:
//   onnx_runtime exported/own_photos photo.jpg other.png
#include <onnxruntime_cxx_api.h>

#include "exported.h"

const int BATCH = 8;  // images that run together

int main(int argc, char** argv) try {
  if (argc < 3) throw std::runtime_error("usage: onnx_runtime FOLDER IMAGE...");
  const std::string folder = argv[1];
  const Exported exported(folder);
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(0);  // all cores
  const Ort::Env env(ORT_LOGGING_LEVEL_ERROR);  // its warnings are of the file's making
  Ort::Session session(env, (folder + "/inference.onnx").c_str(), options);
  Ort::AllocatorWithDefaultOptions allocator;
  const auto input_name = session.GetInputNameAllocated(0, allocator);
  const auto output_name = session.GetOutputNameAllocated(0, allocator);
  const char* input_names[] = {input_name.get()};
  const char* output_names[] = {output_name.get()};  // of several, probabilities are the first
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);

  for (int first = 2; first < argc; first += BATCH) {
    const int count = std::min(BATCH, argc - first);
    Batch batch = exported.read(argv + first, count);
    const std::vector<int64_t> shape(batch.shape.begin(), batch.shape.end());
    const auto tensor = [&](auto& values) {  // sees the values, does not copy them
      return Ort::Value::CreateTensor(memory, values.data(), values.size(), shape.data(),
                                      shape.size());
    };
    const Ort::Value input = batch.numbers.empty() ? tensor(batch.pixels) : tensor(batch.numbers);
    const auto outputs = session.Run(Ort::RunOptions(), input_names, &input, 1, output_names, 1);
    const int classes = outputs[0].GetTensorTypeAndShapeInfo().GetShape()[1];
    for (int i = 0; i < count; ++i)
      exported.print(argv[first + i], outputs[0].GetTensorData<float>() + i * classes, classes);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 2;
}

// Classifies images with Paddle Inference by an exported folder: inference.json,
// inference.pdiparams and inference.yml:
//   paddle_inference exported/own_photos photo.jpg other.png
#include <paddle_inference_api.h>

#include <thread>

#include "exported.h"

const int BATCH = 8;  // images that run together

int main(int argc, char** argv) try {
  if (argc < 3) throw std::runtime_error("usage: paddle_inference FOLDER IMAGE...");
  const std::string folder = argv[1];
  const Exported exported(folder);
  paddle_infer::Config config(folder + "/inference.json", folder + "/inference.pdiparams");
  config.DisableGlogInfo();
  config.EnableONEDNN();  // several times as fast as Paddle's own kernels
  config.SetCpuMathLibraryNumThreads(std::thread::hardware_concurrency());
  const auto predictor = paddle_infer::CreatePredictor(config);
  const auto input = predictor->GetInputHandle(predictor->GetInputNames().at(0));
  const auto output_name = predictor->GetOutputNames().at(0);  // probabilities, of several outputs

  for (int first = 2; first < argc; first += BATCH) {
    const int count = std::min(BATCH, argc - first);
    const Batch batch = exported.read(argv + first, count);
    input->Reshape(batch.shape);
    if (batch.numbers.empty())
      input->CopyFromCpu(batch.pixels.data());
    else
      input->CopyFromCpu(batch.numbers.data());
    if (!predictor->Run()) throw std::runtime_error(folder + ": Paddle could not run it");
    const auto output = predictor->GetOutputHandle(output_name);
    const int classes = output->shape().at(1);
    std::vector<float> probabilities(count * classes);
    output->CopyToCpu(probabilities.data());
    for (int i = 0; i < count; ++i)
      exported.print(argv[first + i], probabilities.data() + i * classes, classes);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 2;
}

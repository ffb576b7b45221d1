"""MLServer, a worker a core, and its adaptive batches."""

from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from loadtest.bench.others.classifier import classifier


class Files(MLModel):
    async def load(self) -> bool:
        self._classifier = classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        answers = self._classifier.answers(Base64Codec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("answers", answers)])

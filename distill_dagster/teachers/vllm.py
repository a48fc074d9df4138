"""vLLM's offline engine as a teacher: a model on this machine's accelerator, without a server.

The engine batches by itself, so it is handed windows of questions; answers of a window are committed together, and a
killed run asks a window again. Needs the extra `vllm`, which is imported when the first question is asked. A model that
`vllm serve` serves is asked through backend `openai` instead.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_dagster.errors import TeacherError
from distill_dagster.teachers.base import Request, Response, TokenLogprob

#: What vLLM says of how an answer ended, and what it is called here.
_FINISH = {"stop": "stop", "length": "length"}
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


class Backend:
    """A model folder in vLLM's engine.

    Args:
        model: Its folder.
        identity: Declared name of the teacher; with `revision` it enters the journal's key.
        revision: Digest of the model's files.
        template: `chat` renders the model's chat template, `plain` joins the messages' text.
        batch_size: Questions handed over together; the engine divides them further.
        threads: Not used: the engine decides.
        dtype: fp32 or bf16.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        identity: str,
        revision: str = "",
        template: str = "chat",
        batch_size: int = 256,
        threads: int = 1,
        dtype: str = "fp32",
    ) -> None:
        self.model, self.identity, self.revision = str(model), identity, revision
        self.template, self.window, self.dtype = template, batch_size, dtype
        self._engine: Any = None

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Answer a window of questions.

        Raises:
            TeacherError: vLLM is not installed, or its engine does not start or stops.
        """
        vllm = self._vllm()
        prompts = [list(map(dict, request.messages)) for request in requests]
        settings = [vllm.SamplingParams(**sampling(request)) for request in requests]
        try:
            if self._engine is None:
                self._engine = vllm.LLM(model=self.model, dtype=_DTYPES[self.dtype], trust_remote_code=False)
            if self.template == "plain":
                texts = ["".join(message["content"] for message in prompt) for prompt in prompts]
                outputs = self._engine.generate(texts, settings, use_tqdm=False)
            else:
                outputs = self._engine.chat(prompts, settings, use_tqdm=False)
        except Exception as error:
            raise TeacherError(
                f"teacher {self.identity}",
                f"vLLM stopped ({type(error).__name__}: {error}).",
                "What was answered is kept; mend the cause and run again.",
            ) from error
        for index, output in enumerate(outputs):
            yield index, response(output, Path(self.model).name)

    def _vllm(self) -> Any:
        try:
            return importlib.import_module("vllm")
        except ImportError as error:
            raise TeacherError(
                f"teacher {self.identity}",
                f"backend vllm needs the package vllm ({error}).",
                'Install it: pip install "distill-dagster[vllm]", on a machine with a supported accelerator.',
            ) from error


def sampling(request: Request) -> dict[str, Any]:
    """Arguments of `vllm.SamplingParams`; a sample beyond the first draws from a seed of its own."""
    given: Mapping[str, Any] = request.sampling
    found: dict[str, Any] = {
        "temperature": float(given.get("temperature", 0.0)),
        "top_p": float(given.get("top_p", 1.0)),
        "max_tokens": int(given.get("max_new_tokens") or 256),
        "stop": list(given.get("stop") or ()),
        "seed": int(given.get("seed", 0)) + request.sample,
    }
    if given.get("top_logprobs"):
        found["logprobs"] = int(given["top_logprobs"])
    return found


def response(output: Any, served: str) -> Response:
    """One of vLLM's `RequestOutput`s."""
    read = len(output.prompt_token_ids or ())
    if not output.outputs:
        return Response("", "error", served, read, 0, failure="empty", detail="no output")
    one = output.outputs[0]
    written = len(one.token_ids)
    finish = _FINISH.get(one.finish_reason)
    if finish is None:
        detail = f"finish_reason {one.finish_reason!r}"
        return Response("", "error", served, read, written, failure="malformed", detail=detail)
    return Response(one.text, finish, served, read, written, logprobs=_logprobs(one))


def _logprobs(one: Any) -> tuple[TokenLogprob, ...] | None:
    """One entry a token of the text: `{token id: Logprob}` says which; the end token has no text, and no entry."""
    if one.logprobs is None:
        return None
    found = []
    for number, listed in zip(one.token_ids, one.logprobs, strict=True):
        said = listed[number]
        if one.finish_reason == "stop" and not said.decoded_token:
            continue
        ordered = sorted(listed.values(), key=lambda entry: -entry.logprob)
        top = tuple((entry.decoded_token or "", entry.logprob) for entry in ordered)
        found.append(TokenLogprob(said.decoded_token or "", said.logprob, top))
    return tuple(found)

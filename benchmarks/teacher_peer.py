"""One measured run of a peer, in the peer's own environment; prints one line of JSON.

    benchmarks/.venv-PEER/bin/python benchmarks/teacher_peer.py PEER URL COUNT IN_FLIGHT FOLDER

Each peer is given the same prompts, as many requests in flight, no cache to start from, and limits so high that they
do not bind. Importing it is no part of the time; its start-up and its writing of results are. Memory is that of the
process and its children together, processor time too.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

from teacher_worker import prompt

TOKENS = 64
PACKAGES = {"distilabel": "distilabel", "curator": "bespokelabs-curator", "designer": "data-designer"}


class Watch(threading.Thread):
    """Largest resident memory of this process and its children together, looked at ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.page = 0, resource.getpagesize()

    def run(self) -> None:
        while True:
            self.most = max(self.most, sum(map(self.resident, self.family(os.getpid()))))
            time.sleep(0.1)

    def family(self, process: int) -> list[int]:
        try:
            tasks = list(Path(f"/proc/{process}/task").iterdir())
            children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            return [process]
        return [process, *(one for child in children for one in self.family(child))]

    def resident(self, process: int) -> int:
        try:
            return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * self.page
        except (OSError, IndexError):
            return 0


def distilabel(url: str, rows: list[dict[str, str]], in_flight: int, folder: Path) -> int:
    """The batch size is what is in flight."""
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with Pipeline(name="bench", cache_dir=str(folder)) as pipeline:
        source = LoadDataFromDicts(data=rows, batch_size=in_flight)
        model = OpenAILLM(
            model="bench",
            base_url=url,
            api_key="none",
            max_retries=6,
            timeout=120,
            generation_kwargs={"max_new_tokens": TOKENS},
        )
        source >> TextGeneration(llm=model, input_batch_size=in_flight)
    answers = pipeline.run(use_cache=False)["default"]["train"]
    return sum(bool(text) for text in answers["generation"])


def curator(url: str, rows: list[dict[str, str]], in_flight: int, folder: Path) -> int:
    """Its limits raised: by default it sends 200 requests a minute to an endpoint that it does not know."""
    from bespokelabs import curator as library

    class Asking(library.LLM):
        def prompt(self, row):
            return row["instruction"]

        def parse(self, row, response):
            return {"instruction": row["instruction"], "generation": response}

    asking = Asking(
        model_name="bench",
        backend="openai",
        generation_params={"max_tokens": TOKENS},
        backend_params={
            "base_url": url,
            "api_key": "none",
            "max_concurrent_requests": in_flight,
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 10_000_000_000,
            "max_retries": 10,
            "require_all_responses": False,
        },
    )
    answers = asking(rows, working_dir=str(folder)).dataset
    return sum(bool(text) for text in answers["generation"])


def designer(url: str, rows: list[dict[str, str]], in_flight: int, folder: Path) -> int:
    """One text column over a frame of seeds."""
    import data_designer.config as dd
    import pandas
    from data_designer.interface import DataDesigner

    provider = dd.ModelProvider(name="bench", endpoint=url, provider_type="openai", api_key="none")
    made = DataDesigner(artifact_path=str(folder), model_providers=[provider])
    made.set_run_config(dd.RunConfig(buffer_size=len(rows), display_tui=False, otel_metrics_port=None))
    limits = dd.ChatCompletionInferenceParams(max_parallel_requests=in_flight, max_tokens=TOKENS, timeout=120)
    model = dd.ModelConfig(
        alias="bench", model="bench", provider="bench", skip_health_check=True, inference_parameters=limits
    )
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=pandas.DataFrame(rows)))
    builder.add_column(dd.LLMTextColumnConfig(name="generation", model_alias="bench", prompt="{{ instruction }}"))
    answers = made.create(builder, num_records=len(rows), dataset_name="bench").load_dataset()
    return int((answers["generation"].fillna("").astype(str).str.len() > 0).sum())


SYSTEMS = {"distilabel": distilabel, "curator": curator, "designer": designer}


def offline(name: str, folder: Path) -> None:
    """What keeps a peer from the network and from what it kept of an earlier run; before it is imported."""
    for home in ("HF_HOME", "DISTILABEL_CACHE_DIR", "CURATOR_CACHE_DIR", "DATA_DESIGNER_HOME"):
        os.environ[home] = str(folder / home.lower())
    for switch in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[switch] = "1"
    os.environ |= {"TELEMETRY_ENABLED": "False", "CURATOR_DISABLE_CACHE": "true", "OPENAI_API_KEY": "none"}
    os.environ |= {"NEMO_TELEMETRY_ENABLED": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    if name == "curator":  # it looks for a tokenizer's file on the network otherwise; litellm has it
        import importlib.util

        found = importlib.util.find_spec("litellm")
        if found is not None and found.origin is not None:
            place = Path(found.origin).parent / "litellm_core_utils" / "tokenizers"
            os.environ["TIKTOKEN_CACHE_DIR"] = str(place)


def main() -> None:
    """Run and print."""
    name, url, count, in_flight, folder = sys.argv[1:]
    offline(name, Path(folder))
    if name == "distilabel":
        import distilabel.pipeline  # noqa: F401
    elif name == "curator":
        import bespokelabs.curator  # noqa: F401
    else:
        import data_designer.interface  # noqa: F401
    rows = [{"instruction": prompt(number)} for number in range(int(count))]
    watch = Watch()
    watch.start()

    def processor() -> float:
        return sum(
            used.ru_utime + used.ru_stime
            for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )

    start, cpu = time.perf_counter(), processor()
    answered = SYSTEMS[name](url, rows, int(in_flight), Path(folder))
    seconds = time.perf_counter() - start
    result = {
        "answered": answered,
        "seconds": seconds,
        "cpu": processor() - cpu,
        "peak_mb": watch.most / 1024**2,
        "version": version(PACKAGES[name]),
    }
    print(json.dumps(result))


if __name__ == "__main__":  # distilabel starts processes that import this file again
    main()

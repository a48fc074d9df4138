"""The training process as Dagster sees it: a Pipes session around the core's own launcher."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg


class TrainingProcess(dg.ConfigurableResource):
    """Opens a Dagster Pipes session for a training process.

    The core starts, watches and stops the process (its own group, standard input held open); Pipes carries its logs
    and metadata into the event log. Messages travel through a file, so a killed child leaves no open socket.
    """

    pipes: bool = True

    @contextmanager
    def session(self, context: dg.AssetExecutionContext) -> Iterator[dict[str, str]]:
        """Environment variables that let the child report to this run."""
        if not self.pipes:
            yield {}
            return
        # Dagster calls its own preview feature here and warns its users of it.
        warnings.filterwarnings("ignore", category=dg.PreviewWarning, module="dagster")
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesEnvContextInjector(),
            message_reader=dg.PipesTempFileMessageReader(),
            extras={},
        ) as session:
            yield dict(session.get_bootstrap_env_vars())

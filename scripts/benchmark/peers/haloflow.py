"""Haloflow on the open cluster: load, plan, run."""

from distributed import Client

import pipeline
from benchmark.room import Contestant, difference


class Peer(Contestant):
    """Haloflow with the two workers that all others have."""

    name = "haloflow"
    recompute = 1.0
    verified: float | None = None

    @property
    def client(self) -> Client:
        """The cluster's client."""
        return self.room.client

    def run(self) -> None:
        """Do the job as a user would who has a cluster."""
        plan = pipeline.plan(pipeline.load(self.room.config(self.name)))
        report = pipeline.run(plan, cluster=self.client, overwrite=True)
        if not report.complete:
            raise RuntimeError(str(report))
        self.recompute = plan.images[0].recompute

    def difference(self, margin: int) -> float | None:
        """Recompute windows in float64, and keep the output as the one that others are compared with."""
        if self.job.verified:
            self.verified = pipeline.verify(pipeline.load(self.room.config(self.name)), windows=4).worst
        truth = self.room.output("truth")
        self.room.output(self.name).rename(truth)
        del margin
        return None


class Single(Peer):
    """Haloflow with one worker."""

    name = "haloflow-1-worker"

    @property
    def client(self) -> Client:
        """The small cluster's client."""
        return self.room.single

    def difference(self, margin: int) -> float | None:
        """Compare with what two workers made."""
        del margin
        return difference(self.room.truth, self.room.maps(self.name))

"""The one door to MLflow: a run's spools go in, an MLflow run comes out, and no outage stops the run.

Nothing is sent from where it is measured. Writers append to `RUN/metrics/<writer>.jsonl` (`avere_ray.metrics`); a
thread in the driver reads these files and sends them in order. What has been sent is kept in
`RUN/metrics/<writer>.sent` and moves only after the server said yes, so an outage means that it stands still for a
while. Creating the MLflow run is the first thing sent: a server that is down from the start changes nothing.

    tracker      what the driver uses: notes on disk, a thread that sends, a bounded end; `send_rest` for later
    sender       walks the spools and keeps the offsets; refusals
    repeats      which points of a spool came before, as when a round is trained again
    mlflow_run   the MLflow side: finds or creates the run, sends batches; the only file that imports mlflow
    state        RUN/mlflow.json: which MLflow run belongs to this folder
    address      tracking URIs
    params       configs and tags within MLflow's limits
    nested       child runs, data sets, tables and logged models
    node         CPU, memory, disk and GPUs of a node, sampled into a spool

No point is lost or doubled:
- After a crash or an answer that was lost, the points of the first batch are held against what the server has.
- What an interrupted round measured and its second training measures again is sent once: the first time.
- The MLflow run carries the tag `avere_ray.spool`, by which it is found again when the answer to its creation was lost.
- The offsets belong to one MLflow run: another server, or a run that was deleted there, gets everything from the start.

What the server refuses for good (a bad name, a file that is gone) goes to `RUN/metrics/refused.txt` with the reason,
and the rest goes on. `RUN/mlflow.json` holds the id of the run, so that the next start continues the same one.
"""

from avere_ray.tracking.address import tracking_uri
from avere_ray.tracking.params import flatten, source_tags
from avere_ray.tracking.tracker import Tracker, send_rest

__all__ = ["Tracker", "flatten", "send_rest", "source_tags", "tracking_uri"]

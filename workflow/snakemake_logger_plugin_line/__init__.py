"""One progress line for Snakemake: what is done, runs, is left; and the last words of a failed job.

Of a dry run: how many jobs of each rule would run, and about how long.
"""

import sys
from collections import Counter
from pathlib import Path
from threading import Event, Thread

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

FORM = "{n_fmt} of {total_fmt} done, {elapsed} gone, about {remaining} left | {desc}"


class LogHandler(LogHandlerBase):
    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.bar, self.running, self.closed = None, {}, Event()
        self.jobs, self.core_seconds, self.unknown = Counter(), 0, set()  # of a dry run
        self.told = False

    def emit(self, record) -> None:
        event = getattr(record, "event", None)
        if self.common_settings.dryrun:
            self.plan(record, event)
        elif event == LogEvent.RUN_INFO and self.bar is None:
            self.bar = tqdm(total=record.stats["total"], bar_format=FORM, file=sys.stderr, dynamic_ncols=True)
            if sys.stderr.isatty():
                Thread(target=self.tick, daemon=True).start()
        elif event == LogEvent.JOB_INFO:
            point = " ".join(f"{k}={v}" for k, v in dict(record.wildcards or {}).items())
            self.running[record.jobid] = f"{record.rule_name} {point}".strip()
        elif event == LogEvent.JOB_FINISHED:
            self.running.pop(record.job_id, None)
            self.bar.update()
        elif event == LogEvent.JOB_ERROR:
            self.running.pop(record.jobid, None)
            self.tell_failure(record)
        elif record.levelname in ("ERROR", "CRITICAL"):
            tqdm.write(record.getMessage(), file=sys.stderr)
        if self.bar is not None:
            self.bar.set_description_str(", ".join(self.running.values()), refresh=sys.stderr.isatty())

    def plan(self, record, event) -> None:
        if event == LogEvent.JOB_INFO and record.rule_name != "all":
            self.jobs[record.rule_name] += 1
            if took := record.resources.get("seconds"):
                self.core_seconds += took * record.threads
            else:
                self.unknown.add(record.rule_name)
        elif record.levelname in ("ERROR", "CRITICAL"):
            print(record.getMessage(), file=sys.stderr)

    def tell_plan(self) -> None:
        jobs = ", ".join(f"{n} {rule}" for rule, n in self.jobs.most_common())
        print(f"would run: {jobs or 'nothing'}", file=sys.stderr)
        if self.core_seconds:
            took = f"about {self.core_seconds / 60:.0f} core-minutes, as it took before (results/)"
            print(took + "".join(f", {rule} not counted" for rule in sorted(self.unknown)), file=sys.stderr)

    def tell_failure(self, record) -> None:
        for log in map(Path, record.log):
            said = (
                [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
                if log.exists()
                else []
            )
            tqdm.write(
                f"{record.rule_name} failed: {said[-1] if said else 'it said nothing'} (all of it in {log})",
                file=sys.stderr,
            )

    def tick(self) -> None:
        while not self.closed.wait(1):
            self.bar.refresh()

    def close(self) -> None:
        self.closed.set()
        if self.common_settings.dryrun and not self.told:
            self.told = True
            self.tell_plan()
        if self.bar is not None:
            self.bar.close()
        super().close()

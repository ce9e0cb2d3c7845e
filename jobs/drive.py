"""The driver of a submitted run: `python -m jobs.drive STORE RUN SUBMISSION`, started by `jobs.launch` with the run's own code.

Does what `tlgan run` does with the submission's pinned spec. What it says, the launcher streams to the store.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
from typing import Any

from cluster.jsonlog import set_up
from cluster.runs import FINAL, RunRecord
from cluster.specfile import parse_job
from cluster.store import ArtifactStore
from jobs.execute import Given, execute, failure_of
from jobs.output import Context
from jobs.progress import Progress
from jobs.session import Session
from jobs.verbs.run import _polite
from tlgan.errors import BackendError, RunStopped, TlganError
from tlgan.manifest import now_utc

PR_SET_PDEATHSIG = 1


def main(store: str, run_id: str, submission: str) -> int:
    """Drives the run to its end. Returns the exit code of its outcome; the record says the same."""
    set_up(logging.INFO, "%(levelname)s %(name)s: %(message)s", run=run_id)
    for chatty in ("ray", "botocore", "boto3", "urllib3", "s3transfer", "matplotlib", "PIL"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    ctx = Context()
    with (
        Progress(ctx) as progress,
        Session(ArtifactStore(store), progress) as session,
        _polite(session, ctx),
    ):
        _end_with_launcher()
        told = session.runs.get_json(run_id, f"submissions/{submission}.json") or {}
        session.fresh = told["fresh"]
        try:
            record = execute(parse_job(told["spec"]), session, Given(run_id, submission))
            ctx.say(f"{record.id}  {record.kind} {record.state}")
            return 0
        except TlganError as error:
            ctx.say(f"{type(error).__name__}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
            _record_end(session, run_id, submission, error)
            return error.exit_code
        except KeyboardInterrupt as error:
            _record_end(session, run_id, submission, error)
            sys.stderr.flush()
            os._exit(130)  # a stage may still compute in its thread; the interpreter can't end under it in order
        except BaseException as error:
            _record_end(session, run_id, submission, error)
            raise


def _end_with_launcher() -> None:
    """Where the system can: a SIGTERM when the launcher dies, for nobody would hear this process any more."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _record_end(session: Session, run_id: str, submission: str, error: BaseException) -> None:
    """For what ends a run before its attempt has begun: bad data, a parent that is gone, a machine that is too small."""

    def ended(found: RunRecord) -> dict[str, Any]:
        if found.state in FINAL or (found.submission or {}).get("id") != submission or found.attempt:
            return {}
        stopped = isinstance(error, KeyboardInterrupt | RunStopped)
        reason = getattr(error, "message", None) or str(error) or type(error).__name__
        state = "stopped" if stopped else "failed"
        return {"state": state, "reason": reason, "finished": now_utc(), "failure": failure_of(error)}

    with contextlib.suppress(BackendError):  # the launcher tries again
        session.runs.revise(run_id, ended)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

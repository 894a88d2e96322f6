"""run_notebooks.py FOLDER JSON: execute notebooks one after another, in one kernel.

JSON maps the path of each notebook to its parameters. An executed notebook is written to FOLDER.
To start a kernel and import torch in it takes seconds, so the stages of a run share one. Between two notebooks
the kernel forgets all names. What papermill injects and writes is the same as for each notebook alone.
"""

import json
import sys
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import DeadKernelError
from papermill import execute_notebook
from papermill.exceptions import PapermillExecutionError

from fashion_vae.lib.files import killed_by


def forget(kernel: AsyncKernelManager) -> None:
    "Delete all names that a notebook left, and its history of cells, from which parameters are read."
    client = kernel.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute("get_ipython().reset(new_session=True)", silent=True, reply=True, timeout=60)
    client.stop_channels()


def main(folder: str, given: str) -> None:
    kernel = AsyncKernelManager(kernel_name="python3")
    try:
        for number, (notebook, parameters) in enumerate(json.loads(given).items()):
            if number:
                forget(kernel)
            execute_notebook(notebook, Path(folder, Path(notebook).name), parameters, progress_bar=False, km=kernel)
    except PapermillExecutionError as e:
        sys.exit(f"{notebook}: {e}")
    except DeadKernelError:
        code = kernel.provisioner.process.poll() or 0
        sys.exit(f"{notebook}: its kernel {f'was {killed_by(-code)}' if code < 0 else 'died'}")
    finally:
        if kernel.has_kernel:
            run_sync(kernel.shutdown_kernel)(now=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

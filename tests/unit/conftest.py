"The unit tests compute with one thread: two of them may run at the same time."

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)

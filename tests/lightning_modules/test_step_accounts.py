"""What is logged of the steps: also across a resume."""

import json
import time

from lightning_modules.accounts import Accounts


def test_the_clock_of_a_window_goes_on_after_a_resume() -> None:
    """Steps from before the stop with seconds from after it would make token rates that no machine reaches."""
    stopped, resumed = Accounts(every_steps=10, epochs=1), Accounts(every_steps=10, epochs=1)
    stopped.on_train_start()
    time.sleep(0.2)
    saved = json.loads(json.dumps(stopped.state_dict()))
    resumed.load_states([saved], rank=0, world=1)
    resumed.on_train_start()
    assert resumed.state_dict()["seconds"] >= saved["seconds"] >= 0.2

"""RQ: what a worker may run, the worker class, the queue's adapter, the clock."""

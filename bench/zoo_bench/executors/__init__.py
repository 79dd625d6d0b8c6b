"""Where a job runs. An executor is a function from a job to an `Outcome`; see `zoo_bench.executors.local`."""

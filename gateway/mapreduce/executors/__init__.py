"""Where a job runs: in this process, on a deployment, or on Dask. The answer is the same, byte for byte."""

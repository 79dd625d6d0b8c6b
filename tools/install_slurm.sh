#!/usr/bin/env bash
# Installs Slurm and munge for the tests of the cluster, from Debian's packages, where they are not there yet. Needs root.
set -euo pipefail

absent=
for name in slurmctld slurmd sbatch munged; do
    command -v "$name" > /dev/null || absent=$name
done
if [ -z "$absent" ]; then exit 0; fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
    echo "install_slurm: needs apt-get and root; else install slurm-wlm and munge yourself" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends slurm-wlm munge > /dev/null

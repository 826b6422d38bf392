"""Many heads on one frozen backbone in minutes: activations, seeds and a grid of your choice.

Each head ends as it would in a run of its own, and leaves the run folder of one. For backbones
that learn, compare runs: python scripts/train.py -m head.activation=relu,gelu seed=1,2,3

Examples:
  python scripts/ablate.py backbone=lite0 data=nih14 data.root=DIR 'activations=[relu,gelu]'
  python scripts/ablate.py backbone=lite0 data=nih14 data.root=DIR 'grid.optimizer.lr=[1e-3,1e-4]'
  python scripts/ablate.py trainer=gpu data=folder data.root=DIR features=live          # B4
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    check = "fluoroscope.config.ablate:check_study"
    command(__doc__, "ablate", "fluoroscope.ablation.ablate:main", check)

"""Compare cures for dead units on your own x-rays: one table, several seeds each.

With a frozen backbone and no augmentation (the default here) the features of each image are
computed once, so that a remedy costs seconds.

Examples:
  python scripts/remedies.py data=nih14 data.root=DIR 'data.labels=[Pneumonia]'
  python scripts/remedies.py data=folder data.root=DIR 'only=[none,revive]' optimizer.lr=1e-2
  python scripts/remedies.py data.labels=[Nodule] '+remedies.mish=["head.activation=mish"]'
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    check = "fluoroscope.ablation.settings:check_remedies"
    command(__doc__, "remedies", "fluoroscope.ablation.remedies:main", check)

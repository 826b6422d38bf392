"""Count the dead and linear units of a network on a folder of images; nothing is trained.

Examples:
  python scripts/census.py model=timm/resnet50.a1_in1k images=FOLDER
  python scripts/census.py model=timm/tf_efficientnet_lite0 backbone.weights=package data=phantom
  python scripts/census.py model=RUN                                  # on the run's own data
  python scripts/census.py model=mypkg.nets:make images=FOLDER data.image_px=224 \
      'backbone.contract={channels: 1, mean: 0.5, std: 0.25, range: [0, 1]}'
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    command(
        __doc__,
        "census",
        "fluoroscope.network_census.story:main",
        "fluoroscope.config.census:check_census",
    )

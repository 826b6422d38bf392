"""A local page to try a trained model: drop a film, see probability, overlay, flags and head.

It needs the packages of the optional extra `demo`. Ctrl-C ends it.

Examples:
  python scripts/demo.py checkpoint=RUN
  python scripts/demo.py checkpoint=RUN/checkpoints/last.ckpt trainer.accelerator=cpu
  python scripts/demo.py checkpoint=RUN point=sensitivity_95 port=8080
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    command(
        __doc__,
        "demo",
        "fluoroscope.demo.story:main",
        "fluoroscope.config.demo:check_demo",
    )

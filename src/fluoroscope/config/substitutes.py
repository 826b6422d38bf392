"""Keys that users of Lightning or of other templates look for, and what takes their place."""

STEPS = "use trainer.max_epochs with trainer.limit_train_batches"
VALIDATION = (
    "validation follows every epoch; shorter epochs are trainer.limit_train_batches=N with a "
    "larger trainer.max_epochs"
)
PRINTING = "use run.progress"
SAVING = "every run writes best.ckpt and last.ckpt; run.save_every_n_steps adds more"
ADDING = "use callbacks=NAME, or '+callbacks.mine={_target_: mypkg.Mine}'"
OWN_CODE = "add it in src/fluoroscope/build.py, which builds all objects"
DEBUG = "use trainer.fast_dev_run=true or trainer.overfit_batches=N"
FOLDER = "use run.dir"
TESTING = "a run always scores its test split; limit it by trainer.limit_test_batches"
INSTEAD = {
    **dict.fromkeys(("trainer.max_steps", "trainer.min_steps", "trainer.max_time"), STEPS),
    "trainer.min_epochs": "use run.patience, which stops a run that no longer improves",
    **dict.fromkeys(("trainer.val_check_interval", "trainer.check_val_every_n_epoch"), VALIDATION),
    "trainer.num_sanity_val_steps": (
        "Lightning's default of 2 batches stays; run.estimate=true tries more"
    ),
    "trainer.limit_predict_batches": "use trainer.limit_test_batches",
    "trainer.gradient_clip_algorithm": "trainer.gradient_clip_val clips the norm",
    **dict.fromkeys(("trainer.enable_checkpointing", "trainer.checkpoint_callback"), SAVING),
    **dict.fromkeys(("trainer.enable_progress_bar", "trainer.enable_model_summary"), PRINTING),
    "trainer.logger": "use logger=csv, logger=wandb, or '+logger.mine={_target_: mypkg.Mine}'",
    "trainer.callbacks": ADDING,
    "trainer.plugins": OWN_CODE,
    **dict.fromkeys(("trainer.default_root_dir", "trainer.weights_save_path"), FOLDER),
    "trainer.inference_mode": "evaluation computes no gradients anyway",
    "trainer.use_distributed_sampler": "the samplers of data divide the images themselves",
    "trainer.barebones": "use diagnostics.enabled=false logger=csv run.progress=quiet",
    "trainer.reload_dataloaders_every_n_epochs": "the order of the images is new in each epoch",
    "trainer.enable_autolog_hparams": "the whole configuration is always stored",
    "trainer.model_registry": "weights come from backbone.weights",
    "trainer.gpus": "use trainer=gpu trainer.devices=N",
    **dict.fromkeys(("trainer.resume_from_checkpoint", "ckpt_path"), "use run.resume=RUN"),
    "trainer.auto_scale_batch_size": "run.estimate=true prints the largest batch",
    "trainer.track_grad_norm": "gradient norms are always logged, as grad/l2/*",
    "trainer.terminate_on_nan": "use diagnostics.alerts.nonfinite",
    "trainer.stochastic_weight_avg": "use optimizer.ema_decay",
    "debug": DEBUG,
    "extras.print_config": "use run.print_config=true",
    "test": TESTING,
    **dict.fromkeys(("paths.data_dir", "data.data_dir"), "use data.root"),
    "hparams_search": "use -m hydra/sweeper=tune",
}

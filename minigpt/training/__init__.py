"""The only training loop in the house.

A stage of the road to ChatGPT differs from another only in where batches come from and what the loss is. That
difference is a value, `Stage`; everything else is one function, `fit`.

    config      how long, how often: TrainConfig; and RunConfig, all settings of one run in one place
    stage       the value: model, batches, objective, evaluate, and what a checkpoint needs beside the weights;
                how a stage of a later room joins: its settings stand at `RunConfig.stage` and can prepare it
    evaluate    how good is it, on text it has not seen? nats per token, perplexity, bits per byte
    pretrain    the first stage: next-token prediction on packed text
    estimate    will it fit into memory? asked before step 0
    run_folder  a new run, a run to resume, a finished run, or a mistake?
    summary     what a person reads before a run, after it, and when it stopped
    loop        `fit`: forward, backward, clip, step, log, evaluate, save; stops cleanly, resumes exactly
    run         the stations of one run: folder, stage, optimizer, `fit`; train.py and quickstart both take this way
    recorded    what a run recorded, and the band in which our own runs lay
    curves      numbers over steps as inline SVG (extra `report`)
    report      a run as one page of curves (extra `report`)

In:  a RunConfig.   Out: a run folder: run.json, metrics.jsonl, checkpoint-<step>/, and the newest weights on top.
"""

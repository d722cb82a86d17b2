"""What machine am I on, and what survives a crash?

Everything here would be needed by any training program, whatever the model: read it once, then forget it.

    config       the five settings: seed, device, dtype, compile, threads
    device       which device, which dtype, how much memory, and why; compilation from outside
    precision    mixed precision by hand: float32 masters, low-precision copies, the loss scaler
    distributed  one process or many, behind one small `Group`
    seeding      randomness as a function of (seed, step, rank), so that there is no state to lose
    workers      one function in several processes, its results in order
    doctor       python -m minigpt doctor: all those choices on one page
    interrupt    Ctrl+C and SIGTERM become a flag that the loop asks for between two steps
    whole        a file or a folder that is there whole or not at all: written aside, synced, renamed
    checkpoint   the same for a run's checkpoints, with a digest that finds damage
    folder_lock  one training at a time in a folder
    logbook      metrics.jsonl, one object per event
    console      errors a user can cause become one line and exit status 2

In:  settings and the environment.   Out: devices, groups, folders that survive `kill -9`.
"""

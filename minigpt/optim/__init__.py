"""How does a gradient become a step?

Backpropagation says which way the loss falls. This room decides how far to go, and along which corrected
direction:

    config    which rule, how fast, how much decay: the flags
    schedule  the learning rate as a pure function of the step
    clip      a gradient that is too long is shortened, one that is not finite is not used
    adamw     one step size per number, from the sizes of its recent gradients
    muon      one step per matrix: its gradient with all singular values set to 1
    groups    which rule gets which parameter; the whole as one optimizer that a checkpoint can hold

The rules know tensors, not models: `groups` looks at names and shapes, and everything else at numbers.

In:  a model's named parameters with `.grad` filled, the step, the settings.
Out: the parameters changed in place, and a flat dict of tensors that says where the optimizer stands.
"""

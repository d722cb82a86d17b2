"""The GPU hot path: Triton kernels, a file per op. Imported only when chosen, so that a laptop needs no Triton.

Each file goes in order: equation, gradient derived on paper, forward, backward, and the op that autograd and
torch.compile know. Next to the op stands `uncovered_<op>`: why plain torch must do it, for shapes the kernels do
not serve. Kernels compute in float32; half precision is for what is loaded, stored or multiplied on the matrix
units. They are started through `launch` alone, so that tests run them in the interpreter and read their machine
code (`manifest`).

    arithmetic         what several of them compute alike
    attention*         flash attention, forward and backward: causal, windowed, grouped, documents, softcap
    attention_hopper*  the same in Gluon, for Hopper alone: warps that load (`hopper`) beside warps that multiply
    decode_attention   one query per sequence against a paged cache, split over the keys
    cross_entropy      head matmul + softmax + loss without ever holding (N, V)
    rms_norm           RMSNorm and LayerNorm, with the residual's addition
    rotary             rotary positions, with QK-norm
    parts              the gradients of gains: what the programs of the two above have added up, summed
    adamw              many tensors in one launch, clipping and low-precision copy in the same pass
    newton_schulz      Muon's symmetric products: half of each is computed, the other half mirrored
    quantized_linear   int8 and int4 weights for the few rows of decoding

In:  tensors on one device; contiguous last dimensions.
Out: tensors; gradients are the same to the last bit every time.
"""

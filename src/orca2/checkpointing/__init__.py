"""Checkpoints of one training stage: what lies on disk, how it is written, which one is used again.

    checkpoints/
      step-00000400/
        shard-00001.safetensors   tensors that rank 0 wrote; one file for each rank that wrote any
        shard-00002.safetensors
        progress.json             everything that is not a tensor: loops, position in the data, random states
        manifest.json             format, step, config signature, size and SHA-256 of each file; written last
      step-00000600/

`shards` writes and reads the tensors, `folder` decides what is complete and whose it is, `saving` does it in the
background. Nothing here is a pickle: tensors are safetensors, the rest is JSON.
"""

"""The processes of one command: who they are, how they start, and how they wait for each other.

ranks       the place of this process, and exchanges over NCCL and gloo
launch      the head process that starts the ranks of a training run
handshake   processes that share an evaluation and meet over files, without collectives
"""

# A pre-training method: the base and the code that its stages can reach, nothing else. It runs `pretrain` only.
ARG BASE
FROM ${BASE}
COPY code /opt/code
ENTRYPOINT ["tini", "-s", "-g", "--", "python", "-m", "pretrain_bench.methods.stage", "pretrain"]

# A pre-training method: the base and only the code that its stages can import. It runs only `pretrain`.
ARG BASE
FROM ${BASE}
COPY code /opt/code
ENTRYPOINT ["tini", "-s", "-g", "--", "python", "-m", "pretrain_bench.methods.stage", "pretrain"]

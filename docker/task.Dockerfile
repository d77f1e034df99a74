# Fine-tuning, the same image for every method.
ARG BASE
FROM ${BASE}
COPY code /opt/code
ENTRYPOINT ["tini", "-s", "-g", "--", "python", "-m", "pretrain_bench.methods.stage", "finetune"]

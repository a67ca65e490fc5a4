"""Where the values of a plan are written: fields of the Workspace, and keys of KAITO's ``training_config.yaml``."""

from __future__ import annotations

# Plan path: where the Workspace says it. A field that the user left out is not in the layer.
FROM_WORKSPACE = {
    "name": "metadata.name",
    "namespace": "metadata.namespace",
    "resource.instanceType": "resource.instanceType",
    "resource.preferredNodes": "resource.preferredNodes",
    "data.urls": "tuning.input.urls",
    "data.volume": "tuning.input.volumeSource",
    "data.image": "tuning.input.image",
    "data.imagePullSecrets": "tuning.input.imagePullSecrets",
    "data.evalSplit": "pipeline.data.evalSplit",
    "data.columns": "pipeline.data.columns",
    "data.allowPrivateHosts": "pipeline.data.allowPrivateHosts",
    "tuning.timeout": "pipeline.tune.timeout",
    "tuning.retries": "pipeline.tune.retries",
    "tuning.preemptions": "pipeline.tune.preemptions",
    "timeLimit": "pipeline.timeLimit",
    "approval": "pipeline.approval",
    "schedule.schedules": "pipeline.schedule.schedules",
    "schedule.timezone": "pipeline.schedule.timezone",
    "schedule.concurrencyPolicy": "pipeline.schedule.concurrencyPolicy",
    "schedule.startingDeadlineSeconds": "pipeline.schedule.startingDeadlineSeconds",
    "schedule.successfulJobsHistoryLimit": "pipeline.schedule.successfulJobsHistoryLimit",
    "schedule.failedJobsHistoryLimit": "pipeline.schedule.failedJobsHistoryLimit",
    "schedule.stopStrategy.expression": "pipeline.schedule.stopStrategy.expression",
    "schedule.suspend": "pipeline.schedule.suspend",
    "output.image": "tuning.output.image",
    "output.pushSecret": "tuning.output.imagePushSecret",
    "output.volume": "tuning.output.volumeSource",
    "rollout.question": "pipeline.rollout.question",
    "rollout.port": "pipeline.rollout.port",
    "rollout.deadline": "pipeline.rollout.deadline",
    "rollout.replicas": "pipeline.rollout.replicas",
    "rollout.maxReplicas": "pipeline.rollout.maxReplicas",
    "rollout.prometheus": "pipeline.rollout.prometheus",
    "rollout.canary": "pipeline.rollout.canary",
    "rollout.gateway": "pipeline.rollout.gateway",
    "nodes.fallbackInstanceTypes": "pipeline.nodes.fallbackInstanceTypes",
    "nodes.spot": "pipeline.nodes.spot",
    "nodes.zones": "pipeline.nodes.zones",
    "nodes.lease": "pipeline.nodes.lease",
    "storage.size": "pipeline.storage.size",
    "storage.storageClass": "pipeline.storage.storageClassName",
    "evaluation.samples": "pipeline.evaluation.samples",
    "evaluation.maxNewTokens": "pipeline.evaluation.maxNewTokens",
    "evaluation.maxLossRatio": "pipeline.evaluation.maxLossRatio",
}
# Plan path: the key of KAITO's training_config.yaml that says it. Keys that are not here go on as maps.
FROM_TRAINING_ARGUMENTS = {
    "tuning.epochs": "num_train_epochs",
    "tuning.maxSteps": "max_steps",
    "tuning.learningRate": "learning_rate",
    "tuning.batchSize": "per_device_train_batch_size",
    "tuning.maxLength": "max_length",
    "tuning.seed": "seed",
}
FROM_LORA_CONFIG = {
    "tuning.rank": "r",
    "tuning.alpha": "lora_alpha",
    "tuning.dropout": "lora_dropout",
    "tuning.targetModules": "target_modules",
}
# Key of KAITO's DatasetConfig: what our formats of rows call that column (steps/row_formats.py).
FROM_COLUMNS = {"messages_column": "messages", "context_column": "prompt", "response_column": "completion"}

"""Checks what a cluster would be given, without a cluster.

    documents     YAML documents, problems and where they are
    kustomize     a folder with kustomization.yaml to documents
    schemas       the shape of every document: Kubernetes' and KubeRay's own schemas, strict
    rules         the table of rules, and running it
    pods          what the API server checks of pods, and how pods are to be run here
    clusters      what KubeRay's operator checks of clusters
    jobs          what it checks of jobs, services and cron jobs
    references    names that must exist: secrets, config maps, claims, accounts, images
    workloads     entrypoints, configs and whether what they ask for fits the worker groups
    dockerfiles   rules for the images
    extract       makes schemas/kuberay-*.json again from a released KubeRay

Rules come in two kinds. "cluster" rules say what an API server or KubeRay's operator would refuse; every manifest must
pass them. "house" rules say how this project runs its pods.
"""

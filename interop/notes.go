package main

// notes are what the table cannot say.
const notes = `
## What is not as a first reader would expect

- cert-manager is of v1.11.5: since v1.12 its commands are modules of their own, which the Go proxy does not have; v1.11 is the last
  whose published module holds commands, chart and definitions together. Its chart is put together as its makefile does.
- metrics-server is given ` + "`--kubelet-insecure-tls`" + `: a node's serving certificate is its own, as upstream's is unless
  ` + "`serverTLSBootstrap`" + ` asks for one that the cluster's authority signs.
- The pods of the Prometheus object do not start, since no image of Prometheus is here; what is judged is the operator's work on objects.
- ` + "`kubectl scale prometheus`" + ` changes the shards, not the replicas: so says prometheus-operator's definition.
- Helm's own chart is given an nginx of a version that is here (` + "`image.tag`" + `), and nothing else.

` + "`make interop ONLY=cert-manager`" + ` runs one program's scene and leaves this page alone; ` + "`cd interop && go run . run -keep`" + ` leaves the cluster up,
with what a scene that failed has made. Building the programs for the first time takes a quarter of an hour; they are kept below ` + "`bin`" + `.
`

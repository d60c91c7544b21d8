// Package fairness shares the server's capacity between those who ask.
//
// Job: priority and fairness: sort each request into a flow by the FlowSchemas,
// let it take seats of its priority level, have it wait in a queue of its flow
// when there are none, refuse it when waiting is no use; lend idle seats between
// levels; keep the objects every cluster has; say in metrics and dumps what goes
// on.
//
// Not its job: what the objects may say (resource/flowschema,
// resource/prioritylevelconfiguration), long requests other than watches.
//
// Invariants: a request that finds a seat free and nobody waiting takes it
// without delay; seats taken are given back once; within a level, flows that
// have waited get equal shares, whatever each asks for; an idle server does
// nothing here.
package fairness

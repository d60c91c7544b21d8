// Command etcd is etcd as its own project builds it, the store of the suite's
// sample API server.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }

package mem_test

import (
	"testing"

	"github.com/sampan-dev/sampan/storage"
	"github.com/sampan-dev/sampan/storage/mem"
	"github.com/sampan-dev/sampan/storage/storagetest"
)

func TestContract(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store { return mem.New() })
}

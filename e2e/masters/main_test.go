package masters

import (
	"os"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m, (*testing.M).Run)) }

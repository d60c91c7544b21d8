package controller

import (
	"slices"
	"strings"
	"testing"
)

func TestControllersOfOldNames(t *testing.T) {
	known := []string{"bootstrap-signer-controller", "token-cleaner-controller", "ttl-controller"}
	c := Config{Controllers: []string{"*", "bootstrapsigner", "-ttl", "service"}}
	if err := c.CheckNames(known); err != nil {
		t.Fatal(err)
	}
	if want := []string{"*", "bootstrap-signer-controller", "-ttl-controller", "service"}; !slices.Equal(c.Controllers[:3], want[:3]) {
		t.Errorf("names = %q, want %q", c.Controllers, want)
	}
	if c.Enabled("ttl-controller", false) {
		t.Error("-ttl does not turn the ttl controller off")
	}
	bad := Config{Controllers: []string{"-nosuch"}}
	if err := bad.CheckNames(known); err == nil || !strings.Contains(err.Error(), `"nosuch" is not in the list of known controllers`) {
		t.Errorf("unknown name: %v", err)
	}
}

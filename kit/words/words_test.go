package words

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"data-dir", "name", "listen-client-urls", "trusted-ca-file"}
	for word, want := range map[string]string{
		"datadir": "data-dir", "nam": "name", "listen-client-url": "listen-client-urls", "ca-file": "trusted-ca-file",
		"quite-another": "", "": "", "listen": "listen-client-urls",
	} {
		if got := Nearest(word, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

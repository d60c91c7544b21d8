package client

import (
	"fmt"
	"net/http"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Hook reads a kubeconfig that describes a webhook instead of a cluster: the
// server's URL is the hook's. Certificates and tokens in files are read again
// when they change.
func Hook(path string) (c *http.Client, url string, err error) {
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: path}, &clientcmd.ConfigOverrides{})
	rc, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	if c, err = rest.HTTPClientFor(rc); err != nil {
		return nil, "", fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	url = rc.Host
	if !strings.Contains(url, "://") {
		url = "https://" + url
	}
	return c, url, nil
}

package client

import (
	"fmt"
	"net/http"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Webhook returns how to reach the service that a kubeconfig file names: its whole
// URL, and a client that shows the file's credentials. With path "" it is the
// cluster that this process is a pod of.
func Webhook(path string) (url string, c *http.Client, err error) {
	var rc *rest.Config
	if path == "" {
		rc, err = rest.InClusterConfig()
	} else {
		rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
		rc, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	}
	if err != nil {
		return "", nil, fmt.Errorf("client: kubeconfig: %s: %w", path, err)
	}
	if c, err = rest.HTTPClientFor(rc); err != nil {
		return "", nil, fmt.Errorf("client: kubeconfig: %s: %w", path, err)
	}
	url = rc.Host
	if !strings.Contains(url, "://") {
		url = "https://" + url
	}
	return url + rc.APIPath, c, nil
}

// Over returns a client that sends its requests by rt: to a server in this process.
func Over(rt http.RoundTripper, agent string) *HTTP {
	return newHTTP(&http.Client{Transport: rt}, Config{Servers: []string{"https://in-process"}, UserAgent: agent})
}

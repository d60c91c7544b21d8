package overlay

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// bare is a server on a machine's own address, beside the overlay.
const bare = `
apiVersion: v1
kind: Pod
metadata: {name: bare}
spec:
  hostNetwork: true
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers: [{name: c, image: nginx:1.25, imagePullPolicy: IfNotPresent}]
`

// figure is what was measured from one machine to the other.
type figure struct {
	MiBPerSecond float64 `json:"mib_s"`
	Connect      float64 `json:"connect_ms"` // the median of one round trip
}

// speed measures the overlay against the bare cable in one run, for the ratio of
// both is what does not depend on the computer, and prints a line of JSON.
func speed(master, node *lab.Computer, backend string) {
	master.Helper()
	master.K("apply", "-f", master.File("bare.yaml", strings.ReplaceAll(bare, "NODE", node.Host)))
	master.K("wait", "--for=condition=Ready", "pod/bare", "--timeout=60s")
	web := master.K("get", "pods", "-l", "app=web", "--field-selector=spec.nodeName="+node.Host, "-o", "jsonpath={.items[0].metadata.name} {.items[0].status.podIP}")
	name, address, _ := strings.Cut(web, " ")
	const large = "for d in /usr/share/nginx/html /var/www/html; do [ -d $d ] && truncate -s 256M $d/large; done; true"
	for _, pod := range []string{name, "bare"} {
		master.K("exec", pod, "--", "sh", "-c", large)
	}
	out := map[string]any{"bench": "overlay", "backend": backend}
	var all []figure
	for _, to := range []string{address, node.Addr.String()} {
		all = append(all, measure(master, to))
	}
	out["overlay"], out["cable"] = all[0], all[1]
	out["throughput_ratio"], out["connect_ratio"] = all[0].MiBPerSecond/all[1].MiBPerSecond, all[0].Connect/all[1].Connect
	text, err := json.Marshal(out)
	if err != nil {
		master.Fatal(err)
	}
	master.Logf("%s", text)
	if all[0].MiBPerSecond <= 0 || all[1].MiBPerSecond <= 0 {
		master.Errorf("nothing came through")
	}
	master.K("delete", "pod", "bare", "--force")
}

// measure takes the best of a few downloads and the median of many connections.
func measure(from *lab.Computer, to string) (f figure) {
	from.Helper()
	numbers := func(what, page string, times int) (out []float64) {
		text := from.Sh(fmt.Sprintf("for i in $(seq %d); do curl -sf --max-time 60 -o /dev/null -w '%%{%s}\\n' http://%s/%s; done", times, what, to, page))
		for line := range strings.Lines(text) {
			n, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
			if err != nil {
				from.Fatal(err)
			}
			out = append(out, n)
		}
		slices.Sort(out)
		return out
	}
	rates, trips := numbers("speed_download", "large", 5), numbers("time_connect", "", 31)
	return figure{rates[len(rates)-1] / (1 << 20), trips[len(trips)/2] * 1000}
}

// masked sees that a pod's packets to what is not in the cluster bear its node's
// address, and those to other pods its own.
func masked(master, node *lab.Computer) {
	master.Helper()
	pod := func(c *lab.Computer) string {
		return master.K("get", "pods", "-l", "app=web", "--field-selector=spec.nodeName="+c.Host, "-o", "jsonpath={.items[0].status.podIP}")
	}
	plain := strings.NewReplacer("[::ffff:", "", "]", "") // as a socket for both families shows the fourth
	for _, c := range []struct{ to, port, sees, inside string }{
		{master.Addr.String(), "10250", node.Addr.String(), ""},
		{pod(master), "80", pod(node), "nsenter -n -t $(pidof nginx | cut -d' ' -f1) "},
	} {
		lab.Until(master, "a pod of "+node.Host+" is seen at "+c.to+" as "+c.sees, func() error {
			node.Sh("nsenter -n -t $(pidof nginx | cut -d' ' -f1) timeout 3 bash -c 'exec 3<>/dev/tcp/" + c.to + "/" + c.port + "; sleep 2' >/dev/null 2>&1 </dev/null & sleep 0.5")
			out := master.Sh(c.inside + "ss -Htn state established sport = :" + c.port)
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); len(f) > 3 && strings.HasPrefix(plain.Replace(f[len(f)-1]), c.sees+":") {
					return nil
				}
			}
			return fmt.Errorf("%s", out)
		})
	}
}

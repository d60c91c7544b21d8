package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/scheduler"
)

const schedulerHead = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"

func readScheduler(t *testing.T, text string) (scheduler.Config, error) {
	t.Helper()
	p := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(p, []byte(schedulerHead+text), 0o600); err != nil {
		t.Fatal(err)
	}
	var cfg scheduler.Config
	err := schedulerFile(p, &cfg, map[string]string{})
	if err == nil {
		err = cfg.Check()
	}
	return cfg, err
}

// TestSchedulerProfiles reads what makes two ways of placing pods.
func TestSchedulerProfiles(t *testing.T) {
	cfg, err := readScheduler(t, `
parallelism: 8
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
percentageOfNodesToScore: 50
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  plugins:
    score:
      disabled: [{name: ImageLocality}]
      enabled: [{name: NodeAffinity, weight: 7}]
  pluginConfig:
  - name: NodeResourcesFit
    args: {apiVersion: kubescheduler.config.k8s.io/v1, kind: NodeResourcesFitArgs, scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 3}]}}
  - name: PodTopologySpread
    args: {defaultingType: List}
`)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Parallelism != 8 || cfg.InitialBackoff != 2*time.Second || cfg.MaxBackoff != 20*time.Second || len(cfg.Profiles) != 2 {
		t.Fatalf("%+v", cfg)
	}
	usual, packer := cfg.Profiles[0], cfg.Profiles[1]
	if usual != scheduler.DefaultProfile("default-scheduler") {
		t.Errorf("the plain profile is %+v", usual)
	}
	if packer.Name != "packer" || !packer.Pack || packer.CPU != 3 || packer.Memory != 0 || !packer.NoSpread || packer.Weights.Locality != 0 || packer.Weights.Prefer != 7 {
		t.Errorf("the packing profile is %+v", packer)
	}
}

func TestSchedulerFilesThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"profiles: [{schedulerName: a}, {plugins: {}}]":                                      "profiles[1].schedulerName: Required value",
		"profiles: [{schedulerName: a}, {schedulerName: a}]":                                 `profiles[1].schedulerName: Duplicate value: "a"`,
		"profiles: [{schedulerName: a, plugins: {score: {enabled: [{name: Mine}]}}}]":        `profiles[0].plugins.score.enabled: unknown plugin "Mine"`,
		"profiles: [{schedulerName: a, plugins: {filter: {disabled: [{name: NodePorts}]}}}]": `profiles[0].plugins.filter.disabled: "NodePorts" cannot be disabled`,
		"profiles: [{pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: 7}}]}]": "profiles[0].pluginConfig: VolumeBinding: bindTimeoutSeconds: Unsupported value: 7",
		"parallelism: 0":                "parallelism: Invalid value: 0: should be an integer value greater than zero",
		"podInitialBackoffSeconds: 0":   "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0",
		"podMaxBackoffSeconds: 0":       "podMaxBackoffSeconds: Invalid value: 0: must be greater than or equal to PodInitialBackoffSeconds",
		"percentageOfNodesToScore: 101": "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
		"extenders: [{urlPrefix: x}]":   "extenders: Forbidden",
	} {
		if _, err := readScheduler(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

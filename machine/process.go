package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// process identifies a process for as long as this computer is up and after:
// ids are used again, start times within one boot are not.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot
	Boot  string `json:"boot"`
}

// identify describes the living process pid.
func identify(pid int) (process, error) {
	start, alive, err := startTime(pid)
	if err != nil {
		return process{}, err
	}
	if !alive {
		return process{}, fmt.Errorf("process %d has ended", pid)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}, err
	}
	return process{PID: pid, Start: start, Boot: strings.TrimSpace(string(boot))}, nil
}

// alive says whether p is still running; a zombie is not.
func (p process) alive() bool {
	now, err := identify(p.PID)
	return err == nil && now == p
}

func startTime(pid int) (ticks uint64, alive bool, err error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false, err
	}
	return parseStat(stat)
}

// parseStat reads a process's state and start time. The program's name stands
// in parentheses and may itself hold parentheses and spaces.
func parseStat(stat []byte) (ticks uint64, alive bool, err error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, false, fmt.Errorf("process status %q: no name", stat)
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 20 {
		return 0, false, fmt.Errorf("process status %q: too short", stat)
	}
	ticks, err = strconv.ParseUint(fields[19], 10, 64)
	return ticks, fields[0] != "Z" && fields[0] != "X", err
}

// State is what is known of a machine from the disk and from /proc.
type State struct {
	Running bool
	PID     int // of init, as this computer numbers it
}

// State reads whether the machine runs.
func (m *Machine) State() (State, error) {
	p, err := m.process()
	if err != nil || !p.alive() {
		return State{}, err
	}
	return State{Running: true, PID: p.PID}, nil
}

// process reads which process init was when last started; the zero process,
// which is never alive, if none was.
func (m *Machine) process() (process, error) {
	var p process
	data, err := os.ReadFile(m.path("init.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("machine %s: %w", m.Spec.Name, err)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("machine %s: %s: %w", m.Spec.Name, m.path("init.json"), err)
	}
	return p, nil
}

func (m *Machine) remember(pid int) (process, error) {
	p, err := identify(pid)
	if err != nil {
		return p, err
	}
	data, err := json.Marshal(p)
	if err != nil {
		return p, err
	}
	return p, writeFile(m.path("init.json"), data)
}

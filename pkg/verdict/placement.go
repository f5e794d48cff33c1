package verdict

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Where a cgroup's limits are kept.
const (
	inSystemd    = "systemd"
	inDocker     = "docker"
	inKubernetes = "kubernetes"
	inNothing    = ""
)

// placement is who manages a cgroup, and by what name.
type placement struct{ kind, name string }

// placed tells it from a path: systemd's units, Docker's containers
// (/docker/ID, docker-ID.scope), a pod's.
func placed(cgroup string) placement {
	if strings.Contains(cgroup, "kubepods") {
		return placement{inKubernetes, ""}
	}
	base := path.Base(cgroup)
	id := `[0-9a-f]{64}`
	if m := regexp.MustCompile(`/docker/(` + id + `)$|/docker-(` + id + `)\.scope$`).FindStringSubmatch(cgroup); m != nil {
		return placement{inDocker, (m[1] + m[2])[:12]}
	}
	for _, suffix := range []string{".service", ".scope", ".slice"} {
		if strings.HasSuffix(base, suffix) {
			return placement{inSystemd, base}
		}
	}
	return placement{inNothing, ""}
}

// dropIn is a systemd drop-in with one line.
func (p placement) dropIn(section, line string) *Persist {
	if i := strings.LastIndexByte(p.name, '.'); i >= 0 && section == "" {
		section = map[string]string{"service": "[Service]", "scope": "[Scope]", "slice": "[Slice]"}[p.name[i+1:]]
	}
	return &Persist{Path: "/etc/systemd/system/" + p.name + ".d/90-overcheck.conf", Content: section + "\n" + line + "\n"}
}

// limit is a limit of one cgroup, and what it is called where it is managed.
type limit struct {
	cgroup, file, property, docker, compose, pod string
	value, old                                   int64
	unit                                         string
}

// limit adds what raises one limit of a cgroup to the remedy.
func (r *Remedy) limit(l limit, set *[]string) {
	*set = append(*set, fmt.Sprintf("%s:%d%s", l.cgroup, l.value, l.unit))
	switch where := placed(l.cgroup); where.kind {
	case inSystemd:
		r.add(fmt.Sprintf("systemctl set-property --runtime %s %s=%d", Quote(where.name), l.property, l.value),
			fmt.Sprintf("systemctl set-property --runtime %s %s=%d", Quote(where.name), l.property, l.old))
		r.Persist = where.dropIn("", fmt.Sprintf("%s=%d", l.property, l.value))
	case inDocker:
		r.add(fmt.Sprintf("docker update %s %d %s", l.docker, l.value, where.name), fmt.Sprintf("docker update %s %d %s", l.docker, l.old, where.name))
		r.Persist = &Persist{"compose.yaml", fmt.Sprintf("    %s: %d\n", l.compose, l.value)}
	default:
		r.add(fmt.Sprintf("echo %d > %s", l.value, Quote(l.file)), fmt.Sprintf("echo %d > %s", l.old, Quote(l.file)))
		if where.kind == inKubernetes {
			r.Risk += " The kubelet sets it again when the pod starts: to last, it must be set in " + l.pod + "."
		}
	}
}

func (r *Remedy) add(command, undo string) {
	r.Commands, r.Undo = append(r.Commands, command), append([]string{undo}, r.Undo...)
}

// Quote makes a word of a shell command of a name from outside.
func Quote(name string) string {
	if regexp.MustCompile(`^[\w@%+=:,./-]+$`).MatchString(name) {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}

// where says where the commands must be run, if not here.
func (s search) where(r Remedy) string {
	if s.facts.Host.Container == "" || len(r.Commands) == 0 || r.Scope == "process" {
		return ""
	}
	return "on the host: " + s.facts.Host.Container
}

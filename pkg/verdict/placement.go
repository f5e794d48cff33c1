package verdict

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/overcheck/overcheck/pkg/kernel"
)

// Where a cgroup's limits are kept.
const (
	inSystemd    = "systemd"
	inDocker     = "docker"
	inKubernetes = "kubernetes"
	inNothing    = "" // or by whom is not known
)

// placement is who manages a cgroup, and by what name.
type placement struct{ kind, name string }

// placed tells it from a path. A path is systemd's, the host's, only if all of it
// is made of units: below another manager (a container's systemd, a user's
// manager) the names are not the host's.
func placed(cgroup string) placement {
	if strings.Contains(cgroup, "kubepods") {
		return placement{inKubernetes, ""}
	}
	id := `[0-9a-f]{64}`
	if m := regexp.MustCompile(`^/docker/(` + id + `)$|/docker-(` + id + `)\.scope$`).FindStringSubmatch(cgroup); m != nil {
		return placement{inDocker, (m[1] + m[2])[:12]}
	}
	units := strings.Split(strings.TrimPrefix(cgroup, "/"), "/")
	for i, unit := range units {
		last := i == len(units)-1
		suffix := path.Ext(unit)
		foreign := strings.HasPrefix(unit, "libpod-") || strings.HasPrefix(unit, "crio-") || strings.HasPrefix(unit, "cri-containerd-")
		if foreign || !last && suffix != ".slice" || !slices.Contains([]string{".slice", ".service", ".scope"}, suffix) {
			return placement{inNothing, ""}
		}
	}
	return placement{inSystemd, units[len(units)-1]}
}

// dropIn is a systemd drop-in with one line, named for the remedy; nil for a
// scope, which is gone when its processes are.
func (p placement) dropIn(id, line string) *Persist {
	section := map[string]string{".service": "[Service]", ".slice": "[Slice]"}[path.Ext(p.name)]
	if section == "" {
		return nil
	}
	name := "/etc/systemd/system/" + p.name + ".d/90-overcheck-" + id + ".conf"
	return &Persist{name, section + "\n" + line + "\n", "rm -f " + Quote(name)}
}

// limit is a limit of one cgroup, and what it is called where it is managed.
type limit struct {
	key, cgroup, file, property, docker, compose, pod string
	value, unit, shown, old                           string
	memsw                                             string // of RAM and swap together (v1), which must be raised first; empty: need not
}

// limit adds what raises one limit of a cgroup to the remedy.
func (r *Remedy) limit(l limit) {
	raise := "raise " + l.key + " of " + l.cgroup + " to " + l.shown
	if r.Title != "" {
		raise = r.Title + ", and " + raise
	}
	r.Title = raise
	if set := r.Set[l.key]; set != "" {
		r.Set[l.key] = set + ","
	}
	r.Set[l.key] += kernel.CgroupValue(l.cgroup, l.value+l.unit)
	switch where := placed(l.cgroup); {
	case l.file == "":
		r.Code = true // a cgroup that a what-if made up
	case where.kind == inSystemd && l.memsw == "":
		r.add(fmt.Sprintf("systemctl set-property --runtime %s %s=%s", Quote(where.name), l.property, l.value),
			fmt.Sprintf("systemctl set-property --runtime %s %s=%s", Quote(where.name), l.property, l.old))
		r.persist(where.dropIn(r.ID, l.property+"="+l.value))
	case where.kind == inDocker:
		swap := ""
		if l.docker == "--memory" {
			swap = " --memory-swap -1"
		}
		r.add(fmt.Sprintf("docker update %s %s%s %s", l.docker, l.value, swap, where.name), fmt.Sprintf("docker update %s %s %s", l.docker, l.old, where.name))
		r.persist(&Persist{"compose.yaml", fmt.Sprintf("    %s: %s\n", l.compose, l.value), ""})
		if swap != "" {
			r.Risk += " The container's swap is then not limited."
		}
	default:
		r.add(fmt.Sprintf("echo %s > %s", l.value, Quote(l.file)), fmt.Sprintf("echo %s > %s", l.old, Quote(l.file)))
		if l.memsw != "" {
			both := Quote(strings.Replace(l.file, "memory.limit", "memory.memsw.limit", 1))
			r.Commands = slices.Insert(r.Commands, len(r.Commands)-1, fmt.Sprintf("echo %s > %s", l.value, both))
			r.Undo = slices.Insert(r.Undo, 1, fmt.Sprintf("echo %s > %s", l.memsw, both))
		}
		if where.kind == inKubernetes {
			r.Risk += " The kubelet sets it again when the pod starts: to last, it must be set in " + l.pod + "."
		} else {
			r.Risk += " It does not last: who makes this cgroup is not known."
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

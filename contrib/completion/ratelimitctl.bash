# bash completion for ratelimitctl: source it, or install it as /usr/share/bash-completion/completions/ratelimitctl

_ratelimitctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb='' words i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        -c | --config) ((i++)) ;;
        -*) ;;
        *) verb=${COMP_WORDS[i]} && break ;;
        esac
    done
    case $before in
    -c | --config | --html)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --postfix-config)
        mapfile -t COMPREPLY < <(compgen -d -- "$word")
        return
        ;;
    --limit | --days | --count | --interval | --until | --for | --reason) return ;;
    --sort)
        mapfile -t COMPREPLY < <(compgen -W "use share rate" -- "$word")
        return
        ;;
    --quota)
        mapfile -t COMPREPLY < <(compgen -W unlimited -- "$word")
        return
        ;;
    esac
    words='-h --help -c --config --json'
    case $verb in
    '')
        words+=' --version'
        words+=' status show history top set unset reset dump reload check doctor plugins replay report migrate'
        ;;
    history) words+=' --limit --days' ;;
    report) words+=' --days --html' ;;
    top) words+=' --limit --count --interval --sort --once' ;;
    dump) words+=' --count' ;;
    set) words+=' --quota --persist --until --for --limit --reason' ;;
    unset | reset) words+=' --limit --reason' ;;
    doctor) words+=' --postfix-config' ;;
    replay) words+=' --html' ;;
    migrate) words+=' --back --dry-run --perl-stopped' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    if [[ $verb == replay && $word != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}

complete -F _ratelimitctl ratelimitctl

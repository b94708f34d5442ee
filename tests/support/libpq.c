/*
 * Calls libpq, for tests that compare with it: reads connection strings, one per line in hexadecimal, and answers each
 * with a line of words.
 *
 *   libpq LIBRARY keywords      "version N", then "KEYWORD VARIABLE" for each keyword ('-' for no variable)
 *   libpq LIBRARY parse         "ok KEYWORD:HEX ..." with the settings, or "error HEX"
 *   libpq LIBRARY connect       "ok" or "error HEX", after connecting and closing
 *
 * The library is loaded by its path, and its functions are declared here, so no header of PostgreSQL is needed.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct
{
    char *keyword;
    char *envvar;
    char *compiled;
    char *val;
    char *label;
    char *dispchar;
    int   dispsize;
} Option;

static void *library;

static void *function(const char *name)
{
    void *found = dlsym(library, name);

    if (!found)
    {
        fprintf(stderr, "no %s in libpq: %s\n", name, dlerror());
        exit(2);
    }
    return found;
}

static void print_hex(const char *text)
{
    for (; *text; text++)
        printf("%02x", (unsigned char) *text);
}

static void print_error(const char *text)
{
    printf("error ");
    print_hex(text ? text : "?");
    printf("\n");
}

static void keywords(void)
{
    int     (*version)(void) = (int (*)(void)) function("PQlibVersion");
    Option *(*defaults)(void) = (Option *(*)(void)) function("PQconndefaults");
    Option *option;

    printf("version %d\n", version());
    for (option = defaults(); option && option->keyword; option++)
        printf("%s %s\n", option->keyword, option->envvar ? option->envvar : "-");
}

static void parse(const char *text)
{
    Option *(*parse_it)(const char *, char **) = (Option *(*)(const char *, char **)) function("PQconninfoParse");
    void    (*free_it)(Option *) = (void (*)(Option *)) function("PQconninfoFree");
    void    (*free_text)(void *) = (void (*)(void *)) function("PQfreemem");
    char   *error = NULL;
    Option *options = parse_it(text, &error);
    Option *option;

    if (!options)
    {
        print_error(error);
        free_text(error);
        return;
    }
    printf("ok");
    for (option = options; option->keyword; option++)
        if (option->val)
        {
            printf(" %s:", option->keyword);
            print_hex(option->val);
        }
    printf("\n");
    free_it(options);
}

static void connect_to(const char *text)
{
    void       *(*connect_it)(const char *) = (void *(*)(const char *)) function("PQconnectdb");
    int         (*status)(void *) = (int (*)(void *)) function("PQstatus");
    const char *(*error)(void *) = (const char *(*)(void *)) function("PQerrorMessage");
    void        (*finish)(void *) = (void (*)(void *)) function("PQfinish");
    void       *connection = connect_it(text);

    if (status(connection) == 0)
        printf("ok\n");
    else
        print_error(error(connection));
    finish(connection);
}

int main(int argc, char **argv)
{
    static char line[1 << 20];

    if (argc != 3 || !(library = dlopen(argv[1], RTLD_NOW)))
    {
        fprintf(stderr, "no libpq: %s\n", argc == 3 ? dlerror() : "LIBRARY and MODE are required");
        return 3;
    }
    if (strcmp(argv[2], "keywords") == 0)
    {
        keywords();
        return 0;
    }
    while (fgets(line, sizeof(line), stdin))
    {
        char *from = line, *to = line;

        for (unsigned int byte; sscanf(from, "%2x", &byte) == 1; from += 2)
            *to++ = (char) byte;
        *to = '\0';
        if (strcmp(argv[2], "parse") == 0)
            parse(line);
        else
            connect_to(line);
        fflush(stdout);
    }
    return 0;
}
